"""The router: decides for each accepted recipient where its copy goes."""
