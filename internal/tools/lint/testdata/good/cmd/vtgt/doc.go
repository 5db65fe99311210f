// Command vtgt is the daemon.
package main
