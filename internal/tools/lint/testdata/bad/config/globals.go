package config

import (
	"errors"
	"sync"
	"sync/atomic"
)

var (
	ErrFine   = errors.New("fine")
	table     = [...]string{"read", "only"}
	mu        sync.Mutex
	count     atomic.Int64
	wake      = make(chan int)
	assigned  int
	counted   = 1
	indexed   = map[string]int{}
	addressed = [4]int{}
	emptied   = map[string]int{}
	Exported  = 1
	shadowed  = 1
)

func write() *[4]int {
	assigned = 1
	counted++
	indexed["a"] = 1
	delete(emptied, "a")
	shadowed := 2
	shadowed = 3
	_ = shadowed
	return &addressed
}

func read(i int) string { return table[i] }
