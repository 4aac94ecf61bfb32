"""The web page: widgets around `programs.app.Studio`, and its server."""
