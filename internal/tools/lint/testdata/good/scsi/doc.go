// Package scsi stands on backing.
package scsi

import _ "example.com/good/backing"
