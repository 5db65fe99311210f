package guest

import (
	"os"
	"sync"
)

// consoleMax bounds what a VM keeps of its console in memory, bytes.
const consoleMax = 256 << 10

// console keeps the end of what a guest prints, and writes all of it to a file.
type console struct {
	mu  sync.Mutex
	end []byte
	log *os.File
}

// Write never fails, so that QEMU never waits.
func (c *console) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.end = append(c.end, b...)
	if n := len(c.end); n > 2*consoleMax {
		c.end = append([]byte(nil), c.end[n-consoleMax:]...)
	}
	if c.log != nil {
		_, _ = c.log.Write(b)
	}
	return len(b), nil
}

func (c *console) text() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return string(c.end)
}

func (c *console) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.log != nil {
		_ = c.log.Close()
		c.log = nil
	}
}
