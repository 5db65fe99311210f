// Package scsitest may import testing.
package scsitest

import _ "testing"
