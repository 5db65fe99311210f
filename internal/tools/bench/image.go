package main

import (
	"math/rand/v2"
	"os"
)

// makeImage makes a file of size bytes that does not compress, written in pieces of
// piece bytes, and leaves it stable on its medium and whole in the page cache. The
// piece matters: file systems with large folios overwrite 4 KiB of a cache that was
// filled by large writes several times slower than of one filled by small writes.
func makeImage(path string, size int64, piece int) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	b := make([]byte, piece)
	r := rand.NewChaCha8([32]byte{1})
	r.Read(b)
	for off := int64(0); off < size; off += int64(len(b)) {
		b[0]++
		if _, err := f.WriteAt(b[:min(int64(len(b)), size-off)], off); err != nil {
			return err
		}
	}
	return f.Sync()
}

// settle waits until what was written to the file is on its medium: what one target
// left dirty is not written back while the other is measured. What is no file settles
// by itself.
func settle(path string) error {
	if path == "" {
		return nil
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}
