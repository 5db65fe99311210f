// Package glob matches names with patterns: '*' stands for any characters, also none,
// '?' for any one, everything else for itself.
package glob
