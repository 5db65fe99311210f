// Package srp is what the ring transports share (T10 SRP r16a's model of a request):
// the target port that vhost-user-scsi, Xen vscsiif and IBM vio drive.
//
// An SRP_CMD, a virtio-scsi request and a vscsiif request carry the same things: LUN,
// tag, task attribute, CDB and data buffers; back go status, sense data, residual and
// credit. Port owns the life of a pooled Request, the credits, the hold that a queue
// has on the initiator's memory, events, draining and counters. Task sets, task
// management and unit attentions are package scsi's; rings and encodings are the
// carriers'.
//
// A carrier makes a Port for each export and a Queue for each ring. On the queue's
// loop it calls Get for each ring entry, fills the Request, calls Submit or Manage,
// and Kick at the end of the batch. Carrier.Respond gets every one of them back, once;
// Put ends its life.
package srp
