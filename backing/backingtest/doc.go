// Package backingtest holds what tests of stores and of their users share: the
// suite that every [backing.Store] passes ([Run]), a synchronous [Driver], and
// [Fault], a store that fails, delays, holds, tears and crashes on command.
package backingtest
