// Package slab is vtgt's payload memory: power-of-two buffers of 512 bytes to
// 2 MiB, cut from 2 MiB pieces of mapped memory that the garbage collector never
// sees and core dumps leave out, bounded in all by one [Pool].
//
// Each loop has its own [Cache], used on that loop only and without locks. Memory
// that was not needed for a while goes back to the kernel.
//
// Buffers are handed out as they are: they hold what an earlier user left in
// them. Send nothing of them that was not filled first.
package slab
