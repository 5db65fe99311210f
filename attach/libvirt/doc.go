// Package libvirt attaches targets to domains of libvirt (its domain XML and its RPC,
// libvirt 9.0 and later; QEMU's QMP for what libvirt has no element for) and takes them
// away again. It runs in the command's process with its user's credentials; what it
// sets up is journalled in the daemon by package attach.
//
// By iSCSI a LUN is a disk of the kind that passes SCSI commands through
// (<disk type='network' device='lun'>): QEMU logs in by itself. By vhost-user a target
// is a virtio-scsi controller of its own with all LUNs; libvirt knows no such device, so
// that it goes into <qemu:commandline> and, while the domain runs, in by QMP.
package libvirt
