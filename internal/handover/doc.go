// Package handover passes what one process serves with to the process that takes its
// place: open descriptors (unix(7), SCM_RIGHTS) and a block that says what they are for,
// in frames over a UNIX socket. What stands in the block is its users' affair.
//
// A frame is a header of 24 bytes, little-endian (magic 8, kind 4, descriptors 4, length
// of the block 8), then one byte for each group of at most 128 descriptors, with which
// they come, then the block.
package handover
