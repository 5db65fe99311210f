// Package attach is what the ways to attach a target to something outside of vtgt
// share: a journal in the daemon (package api's Attachment) and the engine that writes
// each step into it, with what takes it back, before the step is done. After a crash
// anywhere, of the command, the daemon or the machine, the journal says what may have
// been set up, and [Run.Undo] takes it back. What is set up follows no standard: each
// package below this one says whose it is.
//
// How a package below this one uses it:
//
//	e := attach.Engine{Journal: client, Undos: map[string]attach.Undo{"acl": undoACL, "disk": undoDisk}}
//	r, err := e.Begin(ctx, api.Attachment{Kind: "libvirt", Target: "vm1", LUN: 0, Subject: uuid})
//	err = r.Do(ctx, api.AttachmentStep{Name: "acl", Args: …, Undo: …}, func(ctx context.Context) error { … })
//	…
//	if err != nil { return r.Abort(ctx, err) } // takes back what this run has done
//	return r.Finish(ctx)
//
// and to detach:
//
//	r, err := e.Find(ctx, "libvirt", "vm1", 0, uuid)
//	return r.Undo(ctx) // all steps, last first, then the record goes
//
// An Undo is idempotent: that what it should take away is gone already is success. It
// is called for steps that are done and for those that were only planned, because a
// planned one may have happened in part or whole. What Args and Undo of a step hold is
// kept on disk and shown: no secrets.
package attach
