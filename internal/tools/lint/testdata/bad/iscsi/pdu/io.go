package pdu

import _ "net"
