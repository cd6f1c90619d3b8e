package frozenwire

// Answers reports whether data is the response to the call id, or announces a large one; err says
// what is wrong with it.
func Answers(data []byte, id ID) (mine bool, err error) {
	if IsFrame(data) {
		f, err := ParseFrame(data)
		if f.Kind != KindAccept || len(f.Body) < len(id) || ID(f.Body[:len(id)]) != id {
			return false, nil
		}
		if err == nil {
			_, _, err = ParseAccept(&f)
		}
		return true, err
	}
	env, err := Parse(data)
	return env.Kind == KindResponse && env.ID == id, err
}
