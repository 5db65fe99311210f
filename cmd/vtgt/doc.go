// Command vtgt is a SCSI target in user space: the daemon and the commands that
// control it.
package main
