// Package pdu opens sockets.
package pdu
