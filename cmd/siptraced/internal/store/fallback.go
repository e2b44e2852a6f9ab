package store

import (
	"errors"
	"sync"
	"time"

	"siptraced/dbschema"
)

const (
	// fallbackAge is how long a table that rules named and that can't be filled is
	// not asked for again.
	fallbackAge = 30 * time.Second
	// maxUnusable bounds how many such names are remembered.
	maxUnusable = 1024
)

// unusable are the tables that rules named (trace_table_avp) and that can't be
// filled: their rows go into the configured table. The zero value is ready; the
// writers share it.
type unusable struct {
	mu    sync.Mutex // covers until
	until map[string]time.Time
}

// has reports whether the table was found unusable a short while ago.
func (u *unusable) has(name string) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	until, ok := u.until[name]
	return ok && time.Now().Before(until)
}

// add remembers a table; first says that nobody was told of it yet.
func (u *unusable) add(name string) (first bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	_, known := u.until[name]
	if u.until == nil || !known && len(u.until) >= maxUnusable {
		u.until = map[string]time.Time{}
	}
	u.until[name] = time.Now().Add(fallbackAge)
	return !known
}

// isUnusable reports whether an error says that the table itself can't be
// filled, whatever the rows.
func isUnusable(err error) bool {
	plan, name, none := (*dbschema.PlanError)(nil), (*dbschema.NameError)(nil), (*noRowError)(nil)
	return errors.Is(err, dbschema.ErrNoTable) || errors.As(err, &plan) || errors.As(err, &name) || errors.As(err, &none) || judge(err) == ofTable
}
