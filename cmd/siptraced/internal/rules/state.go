package rules

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// save writes down the rules that were started by RPC. The file is replaced as a
// whole.
func (e *Engine) save() {
	e.saving.Lock()
	defer e.saving.Unlock()
	list := []Rule{}
	e.mu.Lock()
	path := e.cfg.StateFile
	for _, a := range e.active {
		if !a.configured() {
			list = append(list, a.Rule)
		}
	}
	e.mu.Unlock()
	if path == "" {
		return
	}
	if err := replaceFile(path, list); err != nil {
		e.log.Error("rules can't be kept over a restart (key rules_state)", "err", err)
	}
}

func replaceFile(path string, list []Rule) error {
	text, err := json.MarshalIndent(list, "", "  ")
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	_, err = f.Write(append(text, '\n'))
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}

// restore puts into force what an earlier run wrote down, but for what has ended
// meanwhile and for what the configuration names otherwise now.
func (e *Engine) restore() error {
	path := e.cfg.StateFile
	if path == "" {
		return nil
	}
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("rules_state: %w", err)
	}
	var list []Rule
	if err := json.Unmarshal(text, &list); err != nil {
		return fmt.Errorf("rules_state %s: %w; mend or remove it", path, err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	now := time.Now()
	for i := range list {
		r := &list[i]
		if !r.Until.IsZero() && !now.Before(r.Until) {
			e.log.Info("rule ended: its time is over", "id", r.ID)
			continue
		}
		if r.Started.IsZero() {
			r.Started = now
		}
		err := r.check()
		if err == nil {
			err = e.start(r)
		}
		if err != nil {
			// It would be a trap if a rule of yesterday kept the daemon from starting.
			e.log.Error("a rule that was kept can't be put into force again", "id", r.ID, "file", path, "err", err)
			continue
		}
		e.log.Info("rule restored", "id", r.ID)
	}
	return nil
}
