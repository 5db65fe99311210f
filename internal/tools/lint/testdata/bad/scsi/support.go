package scsi

import (
	_ "testing"

	_ "example.com/bad/scsi/scsitest"
)
