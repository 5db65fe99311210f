// Package backing is the second waist of vtgt: the stores that hold a disk's
// blocks, behind one small asynchronous interface that the SCSI command core
// drives. It knows nothing of SCSI.
//
// Schemes: file: (raw image), encrypted: (a file, AES-256-XTS), block:
// (host block device), mem: (private memory),
// null: (discards writes, reads zeros).
package backing
