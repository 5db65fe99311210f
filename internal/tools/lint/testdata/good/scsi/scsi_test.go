package scsi_test

import (
	"testing"

	_ "example.com/good/iscsi"
)

var n int

func TestN(t *testing.T) { n++ }
