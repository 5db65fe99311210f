//go:build !lag

package loop

// lag is nothing but in a build with the tag lag.
type lag struct{}

func (*lag) take(*Loop) {}
