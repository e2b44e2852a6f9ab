package store

import (
	"encoding/json"
	"fmt"
	"os"
	"sync"
	"time"
)

// rejects is the file of the rows that the database refused.
type rejects struct {
	path string
	mu   sync.Mutex // covers file
	file *os.File
}

// reject is one line of the file. Packet is the record as it was spooled, a
// HEP3 packet in base64: import it again once the cause is gone.
type reject struct {
	Time   time.Time `json:"time"`
	Reason string    `json:"reason"`
	Table  string    `json:"table"`
	CallID string    `json:"callid"`
	Method string    `json:"method"`
	User   string    `json:"traced_user,omitempty"`
	Packet []byte    `json:"packet"`
}

// add writes one line and brings it to disk: what follows is the commit that
// leaves the row behind.
func (r *rejects) add(line reject) error {
	text, err := json.Marshal(line)
	if err != nil {
		return fmt.Errorf("reject file: %w", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.file == nil {
		r.file, err = os.OpenFile(r.path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o640)
		if err != nil {
			return fmt.Errorf("reject file (key store.reject_file): %w", err)
		}
	}
	if _, err := r.file.Write(append(text, '\n')); err != nil {
		return fmt.Errorf("reject file %s: %w", r.path, err)
	}
	if err := r.file.Sync(); err != nil {
		return fmt.Errorf("reject file %s: %w", r.path, err)
	}
	return nil
}

func (r *rejects) close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.file == nil {
		return nil
	}
	return r.file.Close()
}
