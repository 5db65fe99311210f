// Package pdu only decodes.
package pdu

import _ "net/netip"
