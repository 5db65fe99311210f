package main

import (
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// runAlone measures step, called again and again on a thread of its own for d; step
// does 64 requests.
func runAlone(d time.Duration, step func() error) (sample, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	k, err := startClocks(nil)
	if err != nil {
		return sample{}, err
	}
	cpu, n, begin := threadCPU(), 0, time.Now()
	for time.Since(begin) < d {
		if err := step(); err != nil {
			return sample{}, err
		}
		n += 64
	}
	took := time.Since(begin)
	cpu = threadCPU() - cpu
	s, err := k.sample(n, took, cpu, cpu)
	s.CPUMicros = float64(cpu.Nanoseconds()) / 1e3 / float64(max(n, 1))
	return s, err
}

// memcpyLimit copies 4 KiB from random places of a memory as large as the disk into 32
// buffers in turn, as depth 32 has them.
func memcpyLimit(mem []byte) func(d time.Duration) (sample, error) {
	dst := make([]byte, 32*4096)
	rng, blocks := uint64(88172645463325252), uint64(len(mem)/4096)
	return func(d time.Duration) (sample, error) {
		return runAlone(d, func() error {
			for k := range 64 {
				rng ^= rng << 13
				rng ^= rng >> 7
				rng ^= rng << 17
				off := (rng >> 16) % blocks * 4096
				copy(dst[k%32*4096:][:4096], mem[off:off+4096])
			}
			return nil
		})
	}
}

// preadLimit reads 4 KiB from random places of a cached file.
func preadLimit(f *os.File, size int64) func(d time.Duration) (sample, error) {
	dst := make([]byte, 32*4096)
	rng, blocks := uint64(88172645463325252), uint64(size/4096)
	fd := int(f.Fd())
	return func(d time.Duration) (sample, error) {
		return runAlone(d, func() error {
			for k := range 64 {
				rng ^= rng << 13
				rng ^= rng >> 7
				rng ^= rng << 17
				off := int64((rng >> 16) % blocks * 4096)
				if _, err := unix.Pread(fd, dst[k%32*4096:][:4096], off); err != nil {
					return err
				}
			}
			return nil
		})
	}
}
