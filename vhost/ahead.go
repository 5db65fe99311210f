package vhost

import "github.com/vtgt/vtgt/srp"

const (
	// aheadBytes bounds what is asked for ahead: of longer transfers the processor
	// sees by itself how they go on.
	aheadBytes = 4096
	// aheadPart is what is asked for at once.
	aheadPart = 2048
)

// submit gives req to its queue. One whose data lie in memory waits until the next
// chain has been read, or the batch has ended, while its data are on their way from
// memory: half of them while the one before it is copied, half of them while the next
// chain is read.
func (r *ring) submit(q *srp.Queue, req *srp.Request) {
	near := q.Near(req)
	if near.Len() == 0 {
		r.submitStaged()
		q.Submit(req)
		return
	}
	near.Next(aheadPart)
	r.submitStaged()
	near.Next(aheadBytes - aheadPart)
	r.staged = req
}

// submitStaged submits the request that waits for its data, if there is one.
func (r *ring) submitStaged() {
	if req := r.staged; req != nil {
		r.staged = nil
		req.Queue().Submit(req)
	}
}
