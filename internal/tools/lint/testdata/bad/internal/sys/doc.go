// Package sys is fine itself.
package sys
