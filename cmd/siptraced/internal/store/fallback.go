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

// fallback are the tables that rules named (trace_table_avp) and that can't be
// filled: their rows go into the configured table. The zero value is ready; the
// writers share it.
type fallback struct {
	mu    sync.Mutex // covers until
	until map[string]time.Time
}

// has reports whether the table was found unusable a short while ago.
func (f *fallback) has(name string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	until, ok := f.until[name]
	return ok && time.Now().Before(until)
}

// add remembers a table; first says that nobody was told of it yet.
func (f *fallback) add(name string) (first bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	_, known := f.until[name]
	if f.until == nil || !known && len(f.until) >= maxUnusable {
		f.until = map[string]time.Time{}
	}
	f.until[name] = time.Now().Add(fallbackAge)
	return !known
}

// isUnusable reports whether an error says that the table itself can't be
// filled, whatever the rows.
func isUnusable(err error) bool {
	plan, name, none := (*dbschema.PlanError)(nil), (*dbschema.NameError)(nil), (*noRowError)(nil)
	return errors.Is(err, dbschema.ErrNoTable) || errors.As(err, &plan) || errors.As(err, &name) || errors.As(err, &none) || judge(err) == ofTable
}
