// Package leaktest tells what a test has left behind: goroutines and descriptors.
package leaktest
