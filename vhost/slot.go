package vhost

import (
	"github.com/vtgt/vtgt/internal/gmem"
	"github.com/vtgt/vtgt/scsi"
	"github.com/vtgt/vtgt/srp"
	"github.com/vtgt/vtgt/vhost/virtioscsi"
	"github.com/vtgt/vtgt/vhost/vring"
)

// slot is this carrier's part of a pooled request: the ring entry that it came by. It
// belongs to the request's loop.
type slot struct {
	r      *srp.Request
	ring   *ring
	target *target
	pin    *gmem.Pin // the generation that the chain points into
	chain  *vring.Chain
	head   [][]byte // where the response header goes: the first bytes of chain.In
	next   *slot    // in ring.done
	code   virtioscsi.Response
	n      int64 // bytes written behind the header
}

// newSlot is srp.Config.New.
func newSlot(r *srp.Request) any { return &slot{r: r, chain: &vring.Chain{}} }

// cutHead appends the first n bytes of bufs to dst, as pieces.
func cutHead(dst, bufs [][]byte, n int) [][]byte {
	for _, b := range bufs {
		if n == 0 {
			break
		}
		k := min(n, len(b))
		dst = append(dst, b[:k:k])
		n -= k
	}
	return dst
}

// outcome makes the response of a command that has ended.
func (s *slot) outcome(resp *virtioscsi.Resp) {
	r := s.r
	if r.Aborted {
		resp.Set(s.code, scsi.StatusGood, 0, nil)
		return
	}
	code, left := virtioscsi.OK, int64(0)
	if r.Status != scsi.StatusGood || r.Want != r.OutSize+r.InSize {
		out, in := r.Residuals()
		left = in
		if r.OutSize > 0 {
			left = out
		}
		if left < 0 {
			// The command wanted more than the buffers hold. Where it failed
			// anyway the sense data say more (Linux does not look at them
			// beside OVERRUN).
			left = 0
			if r.Status == scsi.StatusGood {
				code = virtioscsi.Overrun
			}
		}
	}
	s.n = r.InLen
	resp.Set(code, r.Status, uint32(min(left, 1<<32-1)), r.Sense[:r.SenseLen])
}
