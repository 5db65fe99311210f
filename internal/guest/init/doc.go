// Command init is the first program of a test guest: it mounts what a Linux user
// space expects, brings up the network, and serves the agent's requests.
//
// It reaps only what it started itself: orphans stay zombies for the few minutes
// that a guest lives.
package main
