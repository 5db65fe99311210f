//go:build !race

package gmem

import "sync/atomic"

// What Area stands on.

func load32(p *uint32) uint32     { return atomic.LoadUint32(p) }
func load64(p *uint64) uint64     { return atomic.LoadUint64(p) }
func store32(p *uint32, v uint32) { atomic.StoreUint32(p, v) }
