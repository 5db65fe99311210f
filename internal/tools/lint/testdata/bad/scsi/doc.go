// Package scsi is fine itself.
package scsi
