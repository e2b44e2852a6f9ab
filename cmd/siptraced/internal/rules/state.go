package rules

import (
	"fmt"
	"time"

	"siptraced/cmd/siptraced/internal/statefile"
)

// save writes down the rules that were started by RPC.
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
	if err := statefile.Write(path, list); err != nil {
		e.log.Error("rules can't be kept over a restart (key rules.state_file)", "err", err)
	}
}

// restore puts into force what an earlier run wrote down, but for what has ended
// meanwhile and for what the configuration names otherwise now.
func (e *Engine) restore() error {
	path := e.cfg.StateFile
	if path == "" {
		return nil
	}
	var list []Rule
	if err := statefile.Read(path, &list); err != nil {
		return fmt.Errorf("rules.state_file, formerly rules_state %w", err)
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
