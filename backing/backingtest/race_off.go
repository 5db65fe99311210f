//go:build !race

package backingtest

const raceEnabled = false
