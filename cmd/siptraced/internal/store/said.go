package store

import (
	"strings"
	"sync"
)

// said is what the log has said of a database, which is the same for all writers and
// after each outage. The zero value is ready.
type said struct {
	mu    sync.Mutex // covers texts
	texts map[string]struct{}
}

// first reports whether nobody has said that yet of the database of cfg.
func (s *said) first(cfg *Config, words ...string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	text := cfg.URL.Redacted() + "\n" + strings.Join(words, "\n")
	if _, known := s.texts[text]; known {
		return false
	}
	if s.texts == nil {
		s.texts = map[string]struct{}{}
	}
	s.texts[text] = struct{}{}
	return true
}
