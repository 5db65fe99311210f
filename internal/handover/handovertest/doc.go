// Package handovertest is a parent that keeps descriptors as systemd's file descriptor
// store does (sd_notify(3)), for tests that kill its child.
package handovertest
