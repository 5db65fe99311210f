// Package gmem is guest memory: the regions that a virtual machine shares
// (vhost-user's SET_MEM_TABLE and ADD_MEM_REG), mapped into this process and
// treated as what they are, bytes that a hostile peer changes at any moment and
// can take away.
//
// A [Space] is one export's range of addresses, reserved without access. A [Map]
// is one immutable generation of regions mapped into it. Each queue holds the
// generation it works on by a [Pin] and counts its own requests in it without
// atomics; a generation that was retired goes back to no access when the last
// pin is off. The addresses stay reserved until Close, so that a late write never
// lands in memory of this process.
//
// Guest addresses become byte slices by [Map.Append] and [Map.Slice], which check
// them against the map with overflow in mind. The fields of a ring are loaded and
// stored through an [Area]. Everything that touches guest bytes in Go code runs
// under [Guard]: a file that its owner has truncated costs an error that names the
// region, not the process.
package gmem
