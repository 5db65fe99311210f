//go:build race

package main

// raceDetector: the program under test is built as the tests are.
const raceDetector = true
