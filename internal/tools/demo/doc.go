// Command demo boots a small Linux guest under QEMU (TCG) with a disk that bin/vtgt
// serves by vhost-user-scsi, shows what the guest sees of it, writes, reads back, and
// looks for the data on the host. It ends by itself, with 0 if all of that worked.
//
//	demo -vtgt bin/vtgt [-shell]
//
// With -shell it leaves a console to the guest instead of ending.
package main
