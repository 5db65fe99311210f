package vring

// Publish shows the driver everything that was pushed, by one store of used.idx,
// and tells whether the driver must be notified (the call eventfd).
func (r *Ring) Publish() (notify bool) {
	if r.pk != nil {
		return r.publishPacked()
	}
	old := r.shown
	if r.fill == old {
		notify, r.forced = r.forced, false
		return notify
	}
	r.used.Store32(usedFlags, uint32(r.flags)|uint32(r.fill)<<16)
	if r.points != nil {
		r.points(PointPublished)
	}
	if r.inf != nil {
		r.inf.published(int(r.fill-old), r.fill)
	}
	if r.points != nil {
		r.points(PointSettled)
	}
	r.shown = r.fill
	r.flight -= int(r.fill - old)
	// The store above and the load below are sequentially consistent: either we
	// see what the driver asks for, or it sees the entries when it looks again.
	switch {
	case r.eventIdx:
		notify = needEvent(r.avail.Load16(usedEvent(r.size)), r.fill, old)
	default:
		notify = r.avail.Load16(availFlags)&noInterrupt == 0
	}
	notify = notify || r.forced
	r.forced = false
	return notify
}

// Force makes the next Publish notify whatever the driver asked for, also with
// nothing to publish: after the call eventfd was replaced.
func (r *Ring) Force() { r.forced = true }

// EnableKick asks the driver for a notification when it makes the next entry
// available, and then looks into the ring: true says that there is something by
// now, for which no kick may come. Who gets false may sleep.
func (r *Ring) EnableKick() (more bool) {
	if r.pk != nil {
		return r.enableKickPacked()
	}
	if r.eventIdx {
		r.used.Put16(availEvent(r.size), r.next)
		r.barrier.Full()
	} else if r.flags != 0 {
		r.flags = 0
		r.used.Store32(usedFlags, uint32(r.shown)<<16)
	}
	return r.err != nil || r.look() != r.next
}

// DisableKick tells the driver that no notification is needed for now. It is a
// hint: kicks may come nevertheless. With event idx there is nothing to say: the
// driver passes the index that we asked for once.
func (r *Ring) DisableKick() {
	if r.pk != nil {
		r.disableKickPacked()
		return
	}
	if !r.eventIdx && r.flags == 0 {
		r.flags = noNotify
		r.used.Store32(usedFlags, noNotify|uint32(r.shown)<<16)
	}
}
