"""Croissant metadata of a published data set: JSON-LD that search engines and loaders read.

Source: Croissant format specification 1.0, MLCommons, http://mlcommons.org/croissant/1.0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

FILE = "croissant.json"

CONTEXT: dict[str, Any] = {
    "@language": "en", "@vocab": "https://schema.org/", "citeAs": "cr:citeAs", "column": "cr:column", "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/", "rai": "http://mlcommons.org/croissant/RAI/",
    "data": {"@id": "cr:data", "@type": "@json"}, "dataType": {"@id": "cr:dataType", "@type": "@vocab"}, "dct": "http://purl.org/dc/terms/",
    "examples": {"@id": "cr:examples", "@type": "@json"}, "equivalentProperty": "cr:equivalentProperty", "samplingRate": "cr:samplingRate", "extract": "cr:extract", "field": "cr:field", "fileProperty": "cr:fileProperty",
    "fileObject": "cr:fileObject", "fileSet": "cr:fileSet", "format": "cr:format", "includes": "cr:includes", "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath", "key": "cr:key", "md5": "cr:md5", "parentField": "cr:parentField", "path": "cr:path", "recordSet": "cr:recordSet",
    "references": "cr:references", "regex": "cr:regex", "repeated": "cr:repeated", "replace": "cr:replace", "sc": "https://schema.org/",
    "separator": "cr:separator", "source": "cr:source", "subField": "cr:subField", "transform": "cr:transform",
}  # fmt: skip


def croissant(
    *, name: str, description: str, url: str, licence: str, citations: Sequence[str], identifier: str, date: str,
    files: Mapping[str, Mapping[str, Any]], keywords: Sequence[str] = (), creators: Sequence[str] = (),
) -> dict[str, Any]:  # fmt: skip
    """The description of a data set.

    Args:
        identifier: digest of the manifest, another one for other content. url: of the repository. licence: as the Hub names it. date: of publishing, ISO 8601.
        files: name -> bytes and sha256, of the manifest; metadata files are listed one by one, chunks as one set.
    """
    listed = [file for file in files if file.endswith((".json", ".csv", ".html"))]
    distribution: list[dict[str, Any]] = [
        {"@type": "cr:FileObject", "@id": "repository", "name": "repository", "contentUrl": url, "encodingFormat": "git+https", "sha256": "main"}
    ]  # fmt: skip
    distribution += [
        {
            "@type": "cr:FileObject", "@id": file, "name": file, "contentUrl": f"{url}/resolve/main/{file}", "contentSize": f"{files[file]['bytes']} B",
            "encodingFormat": "application/json" if file.endswith(".json") else "text/plain", "sha256": files[file]["sha256"],
        }
        for file in listed if "/" not in file
    ]  # fmt: skip
    distribution.append(
        {
            "@type": "cr:FileSet", "@id": "zarr", "name": "zarr", "containedIn": {"@id": "repository"},
            "encodingFormat": "application/vnd.zarr", "includes": "**",
            "description": "zarr format 3; each file with its SHA-256 is in manifest.json",
        }
    )  # fmt: skip
    return {
        "@context": CONTEXT, "@type": "sc:Dataset", "conformsTo": "http://mlcommons.org/croissant/1.0", "name": name, "description": description,
        "url": url, "license": licence, "citeAs": "; ".join(citations), "version": "1.0.0", "identifier": identifier, "datePublished": date,
        "keywords": list(keywords), "creator": [{"@type": "sc:Organization", "name": creator} for creator in creators],
        "distribution": distribution,
    }  # fmt: skip
