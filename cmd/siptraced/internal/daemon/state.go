package daemon

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// saveState writes down what RPC can change, where the operator wants it kept
// over a restart. The file is replaced as a whole.
func (d *daemon) saveState() {
	path := d.cfg.RPC.StateFile
	if path == "" {
		return
	}
	d.saving.Lock()
	defer d.saving.Unlock()
	state := map[string]string{}
	for _, name := range settings {
		if v, ok := d.Setting(name); ok {
			state[name] = fmt.Sprint(v)
		}
	}
	if err := replaceFile(path, state); err != nil {
		d.log.Error("the state can't be kept (key rpc.state_file)", "err", err)
	}
}

func replaceFile(path string, state map[string]string) error {
	text, err := json.MarshalIndent(state, "", "  ")
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

// restoreState puts into force what an earlier run wrote down.
func (d *daemon) restoreState() error {
	path := d.cfg.RPC.StateFile
	if path == "" {
		return nil
	}
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("rpc.state_file: %w", err)
	}
	state := map[string]string{}
	if err := json.Unmarshal(text, &state); err != nil {
		return fmt.Errorf("rpc.state_file %s: %w; mend or remove it", path, err)
	}
	for name, value := range state {
		if !slices.Contains(settings, name) {
			continue
		}
		if err := d.put(name, value); err != nil {
			return fmt.Errorf("rpc.state_file %s: %s: %w; mend or remove it", path, name, err)
		}
		d.log.Info("setting restored", "setting", name, "to", value)
	}
	return nil
}
