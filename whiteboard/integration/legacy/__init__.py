"""What older caches hold: folders of ``.npz`` epochs, of diskcache, of joblib. Only `unpickler` reads pickles."""
