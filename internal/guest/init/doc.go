// Package main is the init program of a test guest: it mounts what a Linux user
// space expects, brings up the network, and serves the agent's requests.
package main
