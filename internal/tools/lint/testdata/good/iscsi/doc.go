// Package iscsi stands on scsi.
package iscsi

import _ "example.com/good/scsi"
