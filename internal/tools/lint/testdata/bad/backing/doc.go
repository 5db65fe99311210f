// Package backing looks up.
package backing
