package main

import "fmt"

// A cell is one kind of load.
type cell struct {
	Write bool
	Block int // bytes per request
	Depth int // requests in flight
}

func (c cell) String() string {
	op := "read"
	if c.Write {
		op = "write"
	}
	return fmt.Sprintf("%s d%d %s", size(c.Block), c.Depth, op)
}

// size is n bytes in short.
func size(n int) string {
	if n >= 1<<20 {
		return fmt.Sprintf("%dM", n>>20)
	}
	return fmt.Sprintf("%dk", n>>10)
}

// cells are the loads of one medium, reads before the writes that disturb the cache.
func cells(blocks, depths []int) []cell {
	var all []cell
	for _, write := range []bool{false, true} {
		for _, block := range blocks {
			for _, depth := range depths {
				all = append(all, cell{write, block, depth})
			}
		}
	}
	return all
}

// step is the distance of neighbouring requests of qemu-img, which knows no random
// order: small ones jump about the file.
func (c cell) step() int {
	if c.Block >= 64<<10 {
		return c.Block
	}
	return c.Block * 17
}
