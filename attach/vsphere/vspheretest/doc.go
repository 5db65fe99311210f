// Package vspheretest is a vCenter server, or an ESXi host, for tests: govmomi's
// simulator (vSphere Web Services API 8.0) with what that lacks, the software iSCSI
// adapter and VMFS. Its hosts are real initiators: a rescan discovers, logs in (with
// CHAP), asks for LUNs by SCSI commands and shows what it found; a VMFS datastore is a
// label in a block of the LUN, which other hosts find there.
//
// What a real host does and this does not: I/O of virtual machines, port binding, path
// failover, asynchronous appearance of adapters and devices, file systems.
package vspheretest
