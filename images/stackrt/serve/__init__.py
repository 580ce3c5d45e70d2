"""A server for trained models: `python -m stackrt.serve FOLDER`."""
